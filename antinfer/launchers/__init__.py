"""What starts masters and workers: local processes here; pods and actors behind the same small interface."""
