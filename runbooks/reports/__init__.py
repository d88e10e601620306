"""What people and machines read: the terminal, one JSON document, Markdown."""
