"""``python -m depthscale``: the same as the ``depthscale`` command."""

from depthscale.cli import main

raise SystemExit(main())
