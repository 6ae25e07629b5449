"""Actions on AWS, all through `tasks.aws.session`."""
