#!/bin/sh
# Builds the git repositories of the sandbox in the current folder. They cannot be shipped as files: git does not store
# a repository inside a repository. Dates, authors and configuration are fixed, so every commit hash repeats.
set -eu

export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 LC_ALL=C TZ=UTC
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

start() { # NAME: an empty repository, without sample hooks and reflogs
    git -c init.defaultBranch=main init --quiet --template= "$1"
    cd "$1"
    git config core.logAllRefUpdates false
    git config core.autocrlf false
    git config gc.auto 0
    git config advice.detachedHead false
}

save() { # DAY AUTHOR MESSAGE: commit everything that changed, at noon of that day (odd days only: git reads a bare date
    # with the present time of day, so that asking for the commits since the day of a commit would not repeat)
    mail=$(echo "${2%% *}" | tr '[:upper:]' '[:lower:]')@example.org
    export GIT_AUTHOR_NAME="$2" GIT_AUTHOR_EMAIL="$mail" GIT_AUTHOR_DATE="$1T12:00:00Z"
    export GIT_COMMITTER_NAME="$2" GIT_COMMITTER_EMAIL="$mail" GIT_COMMITTER_DATE="$1T12:00:00Z"
    git add --all
    git commit --quiet --no-gpg-sign --message "$3"
}

branch() { # NAME [START]: switch to a new branch
    git checkout --quiet -b "$1" "${2:-HEAD}"
}

main() { # back to the main branch
    git checkout --quiet main
}

finish() { # few files: one pack, packed references
    git repack -a -d --quiet
    git pack-refs --all --prune
    cd ..
}

# Every uncommitted edit below is in a file that all branches share, so that any branch can be checked out.

# A small search program: one unstaged change, one untracked file.
start repo
mkdir src docs
echo "# Finder" >README.md
save 2026-01-05 "Robin Vale" "Add readme"
printf 'def total(prices):\n    return sum(prices)\n' >src/app.py
save 2026-01-09 "Robin Vale" "Add the app skeleton"
printf 'def search(words, text):\n    return [w for w in words if w in text]\n' >src/search.py
save 2026-01-13 "Ada Lind" "Add simple search"
printf '# Guide\n\nOpen the app and type a word.\n' >docs/guide.md
save 2026-01-19 "Ada Lind" "Write the user guide"
printf '# Finder\n\nInstall with pip.\n' >README.md
save 2026-02-01 "Robin Vale" "Update install steps"
git tag v1.0
branch fix/typo
printf '# Guide\n\nOpen the app and type any word.\n' >docs/guide.md
save 2026-02-03 "Ada Lind" "Fix typo in guide"
main
printf 'def total(prices):\n    return round(sum(prices), 2)\n' >src/app.py
save 2026-02-09 "Robin Vale" "Fix rounding in totals"
branch feature/search
printf 'def search(words, text):\n    return sorted(w for w in words if w in text)\n' >src/search.py
save 2026-02-11 "Ada Lind" "Rank search results"
main
printf '# Finder\n\nInstall with pip or uv.\n' >README.md
echo "ask Ada about ranking" >notes.txt
finish

# A web site: one staged change, one unstaged change, one untracked file.
start website
mkdir pages
printf '<h1>Harbour Books</h1>\n' >index.html
printf '<p>Write to us.</p>\n' >pages/contact.html
save 2026-01-05 "Ada Lind" "Add start page"
printf 'body { color: black; }\n' >style.css
save 2026-01-07 "Ada Lind" "Add style sheet"
printf '<p>We sell books.</p>\n' >pages/about.html
save 2026-01-15 "Jonas Berg" "Add about page"
git tag v0.2
branch redesign
printf 'body { color: navy; margin: 2em; }\n' >style.css
save 2026-01-29 "Ada Lind" "Try a blue theme"
main
branch feature/dark-mode
printf 'body { color: white; background: black; }\n' >style.css
save 2026-02-03 "Jonas Berg" "Add dark mode"
main
printf '<p>We sell old and new books.</p>\n' >pages/about.html
save 2026-02-05 "Ada Lind" "Reword about page"
printf '<h1>Harbour Books</h1>\n<p>Open daily.</p>\n' >index.html
git add index.html
printf '<p>Call or write to us.</p>\n' >pages/contact.html
printf '<p>Shipping takes two days.</p>\n' >pages/shipping.html
finish

# Shell scripts: one staged change, two unstaged changes, one untracked file.
start scripts
printf '#!/bin/sh\ntar -cf backup.tar data\n' >backup.sh
printf '#!/bin/sh\ndf -h\n' >disk.sh
save 2026-01-05 "Jonas Berg" "Add backup script"
printf 'print("weekly report")\n' >report.py
printf 'print("hello")\n' >mail.py
printf 'port=25\n' >settings.ini
save 2026-01-11 "Jonas Berg" "Add report script"
git tag v0.1
printf '#!/bin/sh\nrm -rf build\n' >clean.sh
save 2026-01-19 "Mira Holt" "Add clean script"
branch dev
printf 'print("daily report")\n' >report.py
save 2026-01-25 "Mira Holt" "Report every day"
main
branch hotfix
printf '#!/bin/sh\nrm -rf build dist\n' >clean.sh
save 2026-01-27 "Jonas Berg" "Clean dist too"
main
printf '#!/bin/sh\ntar -czf backup.tar.gz data\n' >backup.sh
save 2026-02-05 "Mira Holt" "Compress backups"
git tag v0.3
printf '#!/bin/sh\ndf -h /home\n' >disk.sh
git add disk.sh
printf 'print("good morning")\n' >mail.py
printf 'port=587\n' >settings.ini
echo "rotate old logs" >todo.txt
finish

# A staff handbook: one staged change, one unstaged change, one untracked file.
start handbook
mkdir rules
printf '# Handbook\n' >index.md
printf '# Contacts\n\nFront desk: Sara.\n' >contacts.md
save 2026-01-09 "Mira Holt" "Start the handbook"
printf '# Holidays\n\n25 days a year.\n' >rules/holidays.md
save 2026-01-13 "Mira Holt" "Add holiday rules"
printf '# Travel\n\nTake the train.\n' >rules/travel.md
save 2026-01-21 "Robin Vale" "Add travel rules"
git tag v2025
branch draft/remote-work
printf '# Remote work\n\nTwo days a week.\n' >rules/remote.md
save 2026-01-27 "Robin Vale" "Draft remote work rules"
main
branch review
printf '# Travel\n\nTake the train or the bus.\n' >rules/travel.md
save 2026-01-29 "Mira Holt" "Allow the bus"
main
printf '# Holidays\n\n27 days a year.\n' >rules/holidays.md
save 2026-02-09 "Mira Holt" "Two more holidays"
git tag v2026
printf '# Handbook\n\nAsk Mira.\n' >index.md
git add index.md
printf '# Contacts\n\nFront desk: Sara or Tom.\n' >contacts.md
printf '# Lunch\n\nNoon to one.\n' >rules/lunch.md
finish

# Kitchen recipes: two unstaged changes, one untracked file.
start kitchen
mkdir soups
printf 'flour\nwater\nsalt\n' >bread.txt
printf 'mint\nwater\n' >tea.txt
save 2026-01-11 "Ada Lind" "Add bread and tea"
printf 'leek\npotato\n' >soups/leek.txt
printf 'onion\nbread\n' >soups/onion.txt
save 2026-01-15 "Ada Lind" "Add two soups"
printf 'milk\neggs\nflour\n' >pancakes.txt
save 2026-01-23 "Robin Vale" "Add pancakes"
git tag v1.1
branch vegan
printf 'oat milk\nflour\n' >pancakes.txt
save 2026-01-31 "Robin Vale" "Vegan pancakes"
main
branch spicy
printf 'leek\npotato\nchili\n' >soups/leek.txt
save 2026-02-01 "Ada Lind" "Spicy leek soup"
main
printf 'flour\nwater\nsalt\nyeast\n' >bread.txt
save 2026-02-07 "Ada Lind" "Add yeast"
printf 'mint\nwater\nhoney\n' >tea.txt
printf 'onion\nbread\ncheese\n' >soups/onion.txt
printf 'apples\nsugar\n' >cake.txt
finish
