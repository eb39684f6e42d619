"""Pictures of the gallery: schedules of the policies, and where models are cut."""
