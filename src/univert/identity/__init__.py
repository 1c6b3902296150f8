"""What a photo shows, named from its neighbours by a calibrated vote."""
