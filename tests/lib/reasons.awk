# Why a test program failed, in few lines, of its log:   awk -v rc=STATUS -f reasons.awk LOG
#
# For each of the first MOST failures at most LINES lines of WIDTH characters: its "not ok", and of what stands around it what
# tells most, in the order of the log: what is said right after it, what a program said right before it, and whatever looks
# like an error in what the services said.  A program that ended badly without a "not ok" is known by its last words.
function ends_block(l) { return l ~ /^(not )?ok([ \t]|$)/ || l ~ /^1\.\.[0-9]+$/ }
function is_noise(l) { return l ~ /^#?[ \t]*$/ || l ~ /^#?[ \t]*---/ || l ~ /^# (round|SEED|daemons:|Start|Finish)/ }
function looks_bad(l) {
	return l ~ /Assertion|rror|Sanitizer|SUMMARY|exception|Segmentation|core dump|killed|[Ff]ail|cannot|timed out|fenced|refused|[Ll]ost|No such|errno|wanted|no answer|corrupt|unclean|Killed|status [1-9]|exists|not empty|denied|[Ss]tale|not connected|abort/
}
function say(l) {
	gsub(/[\t\r]/, " ", l)
	if (length(l) > WIDTH)
		l = substr(l, 1, WIDTH - 45) " ... " substr(l, length(l) - 39)
	print l
}
# Of the lines first..last of the log at most `room`: score[] says how much each tells, the first of equals wins, and
# nothing is said twice.
function tell(first, last, room,    i, best, nr, seen) {
	for (i = first; i <= last; i++)
		if (seen[line[i]]++)
			score[i] = 0
	while (room-- > 0) {
		best = 0
		for (i = first; i <= last; i++)
			if (!(i in taken) && score[i] > 0 && (!best || score[i] > score[best]))
				best = i
		if (!best)
			break
		taken[best] = 1
		nr++
	}
	for (i = first; nr > 0 && i <= last; i++)
		if (i in taken) {
			nr--
			say("  " line[i])
		}
}
BEGIN { if (!LINES) LINES = 5; if (!WIDTH) WIDTH = 200; if (!MOST) MOST = 3 }
{ line[NR] = $0 }
END {
	for (i = 1; i <= NR; i++) {
		if (line[i] !~ /^not ok([ \t]|$)/)
			continue
		if (++failures > MOST)
			continue
		split("", score); split("", taken)
		# before it may stand what a load complained of; after another failure "#" is that one's
		for (p = i - 1; p > 0 && !ends_block(line[p]); p--)
			;
		for (a = i - 1; a > p && a > i - 20; a--)
			if (!is_noise(line[a]) && (line[a] !~ /^#/ || line[p] !~ /^not ok/))
				score[a] = looks_bad(line[a]) ? 4 : line[a] !~ /^#/
		for (b = i + 1; b <= NR && b < i + 600 && !ends_block(line[b]) && line[b] !~ /^# all of it:/; b++) {
			if (is_noise(line[b]))
				continue
			score[b] = looks_bad(line[b]) ? 3 : b < i + LINES
			if (!said_first)
				score[b] = said_first = 5
		}
		said_first = 0
		say(line[i])
		delete score[i]
		tell(a + 1, b - 1, LINES - 1)
	}
	if (failures > MOST)
		print "... and " failures - MOST " more"
	if (failures)
		exit
	if (rc == 0)
		say("said no result")
	if (rc == 124 || rc == 137)
		say("not ended within its time; the last that was said:")
	split("", score); split("", taken)
	for (i = NR > 200 ? NR - 199 : 1; i <= NR; i++)
		if (!is_noise(line[i]))
			score[i] = (looks_bad(line[i]) ? 1000 : 0) + (line[i] ~ /Assertion|Sanitizer|SUMMARY|runtime error/ ? 2000 : 0) + i
	tell(NR > 200 ? NR - 199 : 1, NR, LINES)
}
