"""How alike a picture is to a person."""
