"""fxcache behind the interfaces of servers and of hosts of models."""
