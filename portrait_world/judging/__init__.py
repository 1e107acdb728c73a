"""Who is it, how alike, and is the world good enough to measure with?"""
