"""What all tests share: hypothesis without deadlines, as a loaded machine is slow at any moment."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
