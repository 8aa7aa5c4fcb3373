"""Workers as bare pods: made, watched and deleted through the API server, with ordinary rights to pods in one namespace."""
