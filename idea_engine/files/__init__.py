"""How files are written, named by their content, and limited in size."""
