"""The test kit, for plug-ins and for runlake itself: bad filesystems and what good ones do."""
