"""Workers as processes of one machine."""
