#!/usr/bin/env bash
# Releases the tree in the file system, and uses the release as users do: go get, go install,
# go mod tidy. Issue 11, number 38.
source "$(dirname "${BASH_SOURCE[0]}")/modules.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
version=$(tree_version)
# equal WHAT WANT HAVE
equal() { [ "$2" = "$3" ] || die "$1: want $2, have $3"; }

say "a release of the tree as $version, in the file system"
ci/proxy.sh "$dir" "$version"

say "the tree's own go.mod and go.sum are tidy"
ci/tidy.sh -diff "$dir"

say "ci/release.sh, in a clone"
git init -q --bare "$dir/origin.git"
git clone -q --no-tags "$dir/repo" "$dir/clone"
(
	export GIT_CONFIG_GLOBAL=$dir/gitconfig GIT_CONFIG_NOSYSTEM=1
	cd "$dir/clone"
	git remote set-url origin "$dir/origin.git"
	next=v0.999.0

	# refuses TEXT... checks that the release is refused, and that the output contains each text.
	refuses() {
		local said text
		! said=$(ci/release.sh --tag "$next" 2>&1) || die "ci/release.sh --tag $next did not refuse: $said"
		for text in "$@"; do
			grep -qF "$text" <<<"$said" || die "ci/release.sh --tag $next does not say \"$text\": $said"
		done
		[ -z "$(git tag -l)" ] || die "it made tags: $(git tag -l)"
	}
	echo "replace example.com/a => ./a" >>broker/redis/go.mod
	refuses "the tree is not clean" "no section \"## $next (date)\"" "replace directives" \
		"cmd/pushy-server/go.mod requires $root_path/broker/nats $version" "go.work requires $root_path $version"
	git checkout -q .

	printf '# Changelog\n\n## %s (2026-12-01)\n\n- All of it.\n' "$next" >CHANGELOG.md
	ci/release.sh --prepare "$next"
	git commit -qam "the release"
	# A tag that exists only at origin, and one that exists only in this clone.
	git push -q origin "HEAD:refs/tags/broker/nats/$next"
	refuses "the tag broker/nats/$next exists at origin"
	git push -q origin ":refs/tags/broker/nats/$next"
	git tag "cmd/pushy-server/$next"
	! said=$(ci/release.sh --tag "$next" 2>&1) || die "it tagged although a tag exists"
	grep -qF "the tag cmd/pushy-server/$next exists:" <<<"$said" || die "$said"
	equal "the tags after that" "cmd/pushy-server/$next" "$(git tag -l)"
	git tag -d "cmd/pushy-server/$next" >/dev/null
	before=$(git rev-parse HEAD)
	ci/release.sh --tag "$next"
	equal "the tags" "$(for module in "${released[@]}"; do tag_of "$module" "$next"; done | sort)" "$(git tag -l | sort)"
	equal "the commits of the tags" "$before" "$(git tag -l --format '%(objectname)' | xargs -I{} git rev-parse '{}^{commit}' | sort -u)"
	! said=$(ci/release.sh --tag "$next" 2>&1) || die "it tagged a second time"
	grep -qF "the tag $next exists" <<<"$said" || die "$said"
	ci/release.sh --push "$next" 2>&1 | grep -F '[new tag]'
	equal "the tags at the origin" "$(git tag -l | sort)" "$(git -C "$dir/origin.git" tag -l | sort)"

	# The hashes that it wrote before the tags existed are those that users compute.
	sed "s|file://$dir/repo|file://$dir/origin.git|" "$dir/gitconfig" >"$dir/gitconfig2"
	export GIT_CONFIG_GLOBAL=$dir/gitconfig2 GOPRIVATE="$root_path,$root_path/*" GOMODCACHE=$dir/direct GOFLAGS=-modcacherw GOWORK=off
	for module in . broker/nats broker/redis; do
		path=$(path_of "$module")
		sum=$(cd "$dir" && go mod download -json "$path@$next" | sed -n 's/.*"Sum": "\(.*\)".*/\1/p')
		grep -qF "$path $next $sum" cmd/pushy-server/go.sum || die "cmd/pushy-server/go.sum does not have $path $next $sum"
	done
)

# From here on the go command has the settings of a user.
# shellcheck source=/dev/null
source "$dir/env"
export GOBIN=$dir/bin

say "go get, in a user's module"
mkdir "$dir/app" && cd "$dir/app"
go mod init example.com/app
go get "$root_path/broker/redis"
equal "go get without a version" "$version" "$(go list -m -f '{{.Version}}' "$root_path/broker/redis")"
equal "what it requires" "$version" "$(go list -m -f '{{.Version}}' "$root_path")"
cat >main.go <<END
package main

import (
	"fmt"

	"$root_path"
	"$root_path/backend"
	"$root_path/broker/nats"
	"$root_path/broker/redis"
)

func main() {
	rt, err := pushy.New(pushy.Options{
		SecretKey: "the secret of a test",
		Broker:    redis.New(redis.Options{Addresses: []string{"127.0.0.1:1"}}),
	})
	if err != nil {
		panic(err)
	}
	defer rt.Close()
	_, err = backend.New(backend.Options{URL: "http://127.0.0.1:1/pushy", SecretKey: "the secret of a test"})
	fmt.Println("built with", nats.Options{}.Validate(), err)
}
END
cat >main_test.go <<END
package main

import (
	"testing"

	"$root_path"
	"$root_path/pushytest"
)

func TestConnect(t *testing.T) {
	rt, err := pushy.New(pushy.Options{SecretKey: "the secret of a test"})
	if err != nil {
		t.Fatal(err)
	}
	pushytest.New(t, rt).Connect().Subscribe("lobby")
}
END
say "go mod tidy, go vet, go test and go run there"
go mod tidy
equal "go mod tidy" "$version" "$(go list -m -f '{{.Version}}' "$root_path/broker/nats")"
go mod verify
go vet ./...
go test ./...
equal "go run" "built with <nil> <nil>" "$(go run . 2>/dev/null)"

say "go install $root_path/cmd/pushy-server@$version, in no module at all"
mkdir "$dir/nowhere" && cd "$dir/nowhere"
go install "$root_path/cmd/pushy-server@$version"
said=$("$GOBIN/pushy-server" version)
printf '%s\n' "$said"
case $said in
"pushy-server $version "*) ;;
*) die "pushy-server version says: $said" ;;
esac
printf '{"secretKey":"the secret of a test","broker":{"redis":{"addresses":["127.0.0.1:1"]}}}' >config.json
"$GOBIN/pushy-server" -check config.json

say "go install $root_path/examples/cluster@$version"
go install "$root_path/examples/cluster@$version"

for module in "${released[@]}"; do
	say "$module as it would be released, without the workspace"
	cd "$dir/repo/$module"
	go build ./...
done
