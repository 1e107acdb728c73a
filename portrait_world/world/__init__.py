"""Who lives in the world, how they are portrayed, and in which words."""
