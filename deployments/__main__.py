"""`python -m deployments` is the `failover` command."""

import sys

from deployments.cli import main

sys.exit(main())
