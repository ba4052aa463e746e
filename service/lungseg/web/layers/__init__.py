"""What every request passes, whichever API it is for."""
