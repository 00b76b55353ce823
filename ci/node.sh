# Sourced after modules.sh: node and npm, as the tests in JavaScript need them.
need node nodejs
need npm npm
major=$(node -p 'process.versions.node.split(".")[0]')
if [ "$major" -lt 20 ]; then
	echo "node 20 or newer is needed, this is $(node --version): https://nodejs.org/en/download" >&2
	exit 1
fi
