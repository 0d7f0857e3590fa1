"""What was found, for people to read: one page that needs nothing but a browser, and its plots as files."""
