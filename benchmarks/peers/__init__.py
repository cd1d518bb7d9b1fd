"""Other job queues, set up as their documents advise: one signed call for each job."""
