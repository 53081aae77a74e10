// Package debugapi is the JSON of the hub's debug endpoint, shared by the hub and the isthmus command. It holds types only.
//
//	GET /debug/resources?namespace=&type=          -> Resources
//	GET /debug/explain?path=/ns/type/name&from=eu  -> Explanation, or Problem with status 400 or 404
package debugapi

// Resources is what the hub knows, sorted by path.
type Resources struct {
	Epoch     string     `json:"epoch"`
	Serving   bool       `json:"serving"`              // false: clients are not served yet
	Waiting   []string   `json:"waitingFor,omitempty"` // spokes whose report and slices do not agree yet
	Resources []Resource `json:"resources"`
}

// Resource is one resource of the fleet.
type Resource struct {
	Path           string     `json:"path"`
	Namespace      string     `json:"namespace"`
	Type           string     `json:"type"`
	Name           string     `json:"name"`
	Cluster        string     `json:"cluster,omitempty"` // where its route points; empty: 503
	Places         []Place    `json:"places"`
	Decider        string     `json:"decider"`          // the spoke whose properties are used
	Policy         string     `json:"policy,omitempty"` // the TrafficPolicy in force, namespace/name; empty: the default
	Protocols      []string   `json:"protocols,omitempty"`
	TimeoutSeconds int32      `json:"timeoutSeconds,omitempty"` // 0: the default of the type
	Conflicts      []Conflict `json:"conflicts,omitempty"`
	Error          string     `json:"error,omitempty"` // why the served table is an older one
}

// Place is a spoke that declares the resource.
type Place struct {
	Spoke  string `json:"spoke"`
	Ready  bool   `json:"ready"`
	Health string `json:"health"`         // Healthy, Degraded (its Lease has expired), Draining, or Gone (and nobody reaches it)
	Held   bool   `json:"held,omitempty"` // no slice declares it any more; kept until report and slices agree
}

// Conflict says whose properties are not used.
type Conflict struct {
	Spoke  string   `json:"spoke"`
	Fields []string `json:"fields"`
}

// Explanation says where a request goes, and why.
type Explanation struct {
	Resource  Resource `json:"resource"`
	From      string   `json:"from"`
	PolicyWhy string   `json:"policyWhy"` // why the policy, or the default, is in force
	Answer    string   `json:"answer"`    // in words
	Order     []Step   `json:"order"`     // places as they are tried
	Inputs    []Input  `json:"inputs"`    // what this was made of
}

// Step is one place in the order in which places are tried.
type Step struct {
	Spoke      string   `json:"spoke"`
	Why        string   `json:"why"` // own cluster, same zone, same region, distance
	DistanceKm *float64 `json:"distanceKm,omitempty"`
	Use        string   `json:"use"`          // how requests treat it
	Step       int      `json:"step"`         // of the failover order, from 1; places of one step share requests
	Share      int      `json:"sharePercent"` // of the step, when all of it are healthy
	Routers    []string `json:"routers,omitempty"`
}

// Input is one spoke's part. Ages are in seconds; null where there is none.
type Input struct {
	Spoke            string   `json:"spoke"`
	Slices           []Slice  `json:"slices"`
	ReportAgeSeconds *float64 `json:"reportAgeSeconds"` // since the hub saw the report change
	Session          string   `json:"session,omitempty"`
	Complete         bool     `json:"complete"` // report and slices agreed in this session
	Lease            string   `json:"lease"`    // Available, Held, Silent, Removed, NeverSeen
	LeaseAgeSeconds  *float64 `json:"leaseAgeSeconds"`
	Witnesses        int      `json:"witnesses"`                 // spokes that can tell whether they reach it
	UnreachableFrom  []string `json:"unreachableFrom,omitempty"` // those of them that do not
}

// Slice is an AgentSlice that declares the resource.
type Slice struct {
	Name       string  `json:"name"`
	Generation int64   `json:"generation"`
	AgeSeconds float64 `json:"ageSeconds"` // since the hub saw this generation
}

// Problem is an RFC 9457 body.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}
