"""Triangle meshes: extracted from a density, cleaned, made manifold."""
