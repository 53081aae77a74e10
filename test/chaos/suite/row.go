package suite

import (
	"bufio"
	"cmp"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// Row is what one scenario cost, in one round or as the median of several.
type Row struct {
	Scenario string `json:"scenario"`
	// Rounds that the figures are medians of.
	Rounds int `json:"rounds"`
	// Sent and failed requests of the loaded agent, without any retry by the client.
	GETs        int `json:"gets"`
	FailedGETs  int `json:"failedRetrySafe"`
	POSTs       int `json:"posts"`
	FailedPOSTs int `json:"failedOther"`
	// Duplicated counts keys of POSTs that reached pods more than once.
	Duplicated int `json:"duplicatedPosts"`
	// Withdrawn counts answers that say that a resource which never went away is unknown.
	Withdrawn int `json:"withdrawn"`
	// Bystanders: requests of an agent that the fault does not concern.
	FailedBystanders int `json:"failedBystanders"`
	// LastError is from the fault to the end of the last request that failed; 0 when none did.
	LastError time.Duration `json:"lastErrorNanoseconds"`
	// Recovery is from the end of the fault until everything is as before.
	Recovery time.Duration `json:"recoveryNanoseconds"`
	// Attempts per request at the pods; only where the scenario counts them.
	Attempts float64 `json:"attempts,omitempty"`
	// StreamsReset on the way that the fault broke, and those elsewhere.
	Streams           int    `json:"streams"`
	StreamsReset      int    `json:"streamsReset"`
	OtherStreamsReset int    `json:"otherStreamsReset"`
	Example           string `json:"exampleOfAFailure,omitempty"`
}

// count fills in what the results say.
func (r *Row) count(results []Result, loaded string, injected time.Time) {
	for _, x := range results {
		if x.Withdrawn() {
			r.Withdrawn++
		}
		ok := x.OK()
		switch {
		case x.Path != loaded:
			if !ok {
				r.FailedBystanders++
			}
		case x.Method == http.MethodPost:
			r.POSTs++
			if !ok {
				r.FailedPOSTs++
			}
		default:
			r.GETs++
			if !ok {
				r.FailedGETs++
			}
		}
		if !ok {
			r.Example = x.Method + " " + x.Path + ": " + x.Err
			if x.Path == loaded {
				r.LastError = max(r.LastError, x.End.Sub(injected))
			}
		}
	}
}

// entries reads what agents have noted: how often the pods saw each key of a prefix, and how often with what method.
func entries(path, prefix, method string) (map[string]int, error) {
	out := map[string]int{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == method && strings.HasPrefix(fields[1], prefix) {
			out[fields[1]]++
		}
	}
	return out, lines.Err()
}

func repeated(keys map[string]int) int {
	n := 0
	for _, seen := range keys {
		if seen > 1 {
			n++
		}
	}
	return n
}

// Median of several rounds of one scenario, figure by figure; duplicates and withdrawn routes are the worst of all.
func Median(rows []Row) Row {
	out := rows[len(rows)-1]
	out.Rounds = len(rows)
	mid := func(of func(Row) int) int { return middle(rows, of) }
	out.GETs, out.POSTs = mid(func(r Row) int { return r.GETs }), mid(func(r Row) int { return r.POSTs })
	out.FailedGETs = mid(func(r Row) int { return r.FailedGETs })
	out.FailedPOSTs = mid(func(r Row) int { return r.FailedPOSTs })
	out.FailedBystanders = mid(func(r Row) int { return r.FailedBystanders })
	out.StreamsReset = mid(func(r Row) int { return r.StreamsReset })
	out.OtherStreamsReset = mid(func(r Row) int { return r.OtherStreamsReset })
	out.LastError = middle(rows, func(r Row) time.Duration { return r.LastError })
	out.Recovery = middle(rows, func(r Row) time.Duration { return r.Recovery })
	out.Attempts = middle(rows, func(r Row) float64 { return r.Attempts })
	for _, r := range rows {
		out.Duplicated, out.Withdrawn = max(out.Duplicated, r.Duplicated), max(out.Withdrawn, r.Withdrawn)
	}
	return out
}

func middle[T cmp.Ordered](rows []Row, of func(Row) T) T {
	var all []T
	for _, r := range rows {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
