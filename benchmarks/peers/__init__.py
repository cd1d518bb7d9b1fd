"""Other queues, each as its documents advise, doing what a run does: one signed call a job."""
