"""What is optimised: every kind of scene, behind one protocol (``scene.scene.Scene``)."""
