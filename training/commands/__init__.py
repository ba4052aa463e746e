"""One module for each group of commands; imports all below, and nothing else imports it."""
