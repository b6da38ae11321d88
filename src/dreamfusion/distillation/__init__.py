"""Rules that turn (picture, question, t, noise) into a direction for the picture. One file a rule."""
