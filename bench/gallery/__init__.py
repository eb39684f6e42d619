"""The pictures of the gallery: schedules of policies, and cuts of models."""
