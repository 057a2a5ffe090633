"""The technical step of `counts`, of `shares` and of `scores`: level, group effects and spread of each feature."""
