"""What comes in over the network: checked, kept, triaged. Nothing of it can change anything but the timeline."""
