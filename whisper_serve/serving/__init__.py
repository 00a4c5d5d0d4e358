"""The service on Ray Serve. Only this folder imports ray."""
