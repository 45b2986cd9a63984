"""What a training script calls around its loop: constants, data, progress, files."""
