#!/bin/sh
# Make a Chromium available to the browser tests where this machine lets us: root on Debian or
# Ubuntu. Elsewhere say that the tests will be skipped and how to run them. Never fails: a machine
# without a browser still runs every other test.

for name in "$DEPTHSCALE_CHROMIUM" chromium chromium-browser google-chrome; do
	if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then
		exit 0
	fi
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "Installing Chromium for the browser tests (once; about 100 MB)"
	log=$(mktemp)
	if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends chromium; } >"$log" 2>&1; then
		rm -f "$log"
		command -v chromium >/dev/null 2>&1 && exit 0
	else
		echo "apt-get could not install it:"
		tail -n 3 "$log"
		rm -f "$log"
	fi
fi

echo "The browser tests will be skipped: no Chromium on the PATH. To run them, install Chromium"
echo "or Google Chrome, or name one: DEPTHSCALE_CHROMIUM=/path/to/chrome make test"
exit 0
