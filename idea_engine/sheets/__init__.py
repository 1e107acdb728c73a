"""Pictures about pictures: contact sheets, numbered sheets, charts, heat maps."""
