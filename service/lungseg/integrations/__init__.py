"""Ways into the tools that people have; nothing else imports them, and each only when called."""
