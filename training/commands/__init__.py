"""One module for each group of commands; imports all below; ``__main__`` alone imports it."""
