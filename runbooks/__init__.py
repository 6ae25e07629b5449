"""What to do, as data: the grammar of runbooks, the loader, the plan and the lint rules; `library/` holds ours."""
