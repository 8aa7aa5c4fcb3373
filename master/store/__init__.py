"""The task store: what is open lies here, durably, under a fence that only the highest epoch passes."""
