"""The networks in other tools."""
