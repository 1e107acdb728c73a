"""The networks of the world, and the noise they learn under."""
