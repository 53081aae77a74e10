package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// The kinds of resource that the program can stand for.
const (
	kindAgent    = "agent"
	kindMCP      = "mcp"
	kindModelAPI = "modelapi"
)

type options struct {
	kind        string
	name        string
	description string
	address     string            // host:port to listen on
	pod         string            // how the pod calls itself in answers
	journal     string            // file that takes a line for each request with a key
	limit       int               // requests at a time; 0: any number
	peers       map[string]string // base URLs of the agents that messages may be passed on to
}

// parseOptions reads flags, whose defaults come from the environment that KAOS and the lab give a pod.
func parseOptions(args []string, getenv func(string) string, output io.Writer) (options, error) {
	env := func(key, fallback string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return fallback
	}
	o := options{}
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.StringVar(&o.kind, "kind", kindAgent, "agent, mcp or modelapi")
	fs.StringVar(&o.name, "agent-name", env("AGENT_NAME", "agent"), "name of the resource")
	fs.StringVar(&o.description, "description", env("AGENT_DESCRIPTION", "A demonstration agent"), "description in the card")
	fs.StringVar(&o.address, "address", net.JoinHostPort(env("POD_IP", "127.0.0.1"), env("PORT", "8000")), "host:port to listen on")
	fs.StringVar(&o.journal, "journal", "", "file that takes a line for each request with an Idempotency-Key, shared by all pods")
	fs.IntVar(&o.limit, "limit", 0, "requests with an Idempotency-Key served at a time, 503 for those on top (default any number)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	switch o.kind {
	case kindAgent, kindMCP, kindModelAPI:
	default:
		return o, fmt.Errorf("--kind is %q: use agent, mcp or modelapi", o.kind)
	}
	if o.limit < 0 {
		return o, fmt.Errorf("--limit is %d: use 0 (any number) or more", o.limit)
	}
	host, port, err := net.SplitHostPort(o.address)
	if err != nil {
		return o, fmt.Errorf("--address: %w", err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return o, fmt.Errorf("--address: port %q is not a number from 0 to 65535", port)
	}
	o.pod = env("POD_NAME", host)
	o.peers, err = parsePeers(getenv)
	return o, err
}

// parsePeers reads the peers as the KAOS operator hands them over: PEER_AGENTS=a,b-c with PEER_AGENT_A_CARD_URL and
// PEER_AGENT_B_C_CARD_URL.
func parsePeers(getenv func(string) string) (map[string]string, error) {
	peers := map[string]string{}
	for name := range strings.SplitSeq(getenv("PEER_AGENTS"), ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		key := "PEER_AGENT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_CARD_URL"
		u, err := url.Parse(getenv(key))
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("%s is %q: peer %s needs an http or https URL", key, getenv(key), name)
		}
		peers[name] = strings.TrimSuffix(u.String(), "/")
	}
	return peers, nil
}
