"""What trainers of recognising networks share: settings, optimiser and loop, checkpoint folders, images in memory."""
