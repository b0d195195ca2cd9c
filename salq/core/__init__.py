"""What every other room stands on: errors, events, progress, settings, files, device. Imports nothing of salq."""
