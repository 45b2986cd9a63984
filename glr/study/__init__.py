"""Many runs, and the pages and pictures that are written of them."""
