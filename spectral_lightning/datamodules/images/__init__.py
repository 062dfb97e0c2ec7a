"""Images: torchvision sets, image folders, sets that packages ship."""
