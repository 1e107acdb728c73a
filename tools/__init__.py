"""For developers: what makes the icon, the locales, the pictures of the nodes, the thumbnails and the registry's archive."""
