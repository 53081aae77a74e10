package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// etcdTimeout bounds one request to etcd.
const etcdTimeout = 20 * time.Second

// empty takes from the hub's etcd all that Isthmus keeps there, while what reads it is down. The fleet's CA stays, as with a new hub that
// gets a copy of it, and so does what else the cluster holds: pods, and a spoke that lives in the same cluster.
func (d *Daemon) empty(ctx context.Context, c *cluster) error {
	etcd := newEtcd(d.fabric.Nodes[c.plan.Name].NS())
	return c.without(ctx, []string{"controller-manager", "apiserver"}, func() error {
		keys, err := etcd.keys(ctx)
		if err != nil {
			return err
		}
		keys = slices.DeleteFunc(keys, func(key string) bool { return !ofIsthmus(d.plan, key) })
		for _, key := range keys {
			if err := etcd.remove(ctx, key); err != nil {
				return err
			}
		}
		d.log.Info("the hub's store is empty", "removed", len(keys))
		return nil
	})
}

// ofIsthmus says whether a key of etcd is of the hub: its objects, what it keeps for itself but the CA, and the namespaces of spokes with
// all that is in them.
func ofIsthmus(p plan.Plan, key string) bool {
	own := []string{"configmaps/" + systemNamespace + "/isthmus-epoch", "secrets/" + systemNamespace + "/isthmus-epoch", "secrets/" + systemNamespace + "/isthmus-trust"}
	rest, _ := strings.CutPrefix(key, "/registry/")
	if strings.HasPrefix(rest, "isthmus.dev/") || slices.Contains(own, rest) {
		return true
	}
	return slices.ContainsFunc(p.Clusters, func(c plan.Cluster) bool {
		ns := "isthmus-spoke-" + c.Name
		return rest == "namespaces/"+ns || strings.Contains(rest, "/"+ns+"/")
	})
}

// etcd is the etcd of a cluster, as its gateway of JSON sees it.
type etcd struct{ client *http.Client }

func newEtcd(ns *netlab.NS) etcd {
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			var failed error
			conn, failed = (&net.Dialer{}).DialContext(ctx, network, addr)
			return failed
		})
		return conn, err
	}
	return etcd{&http.Client{Timeout: etcdTimeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (e etcd) call(ctx context.Context, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:2379/v3/kv/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("etcd %s: %s: %.200s", method, resp.Status, text), err)
	}
	return json.Unmarshal(text, out)
}

// keys lists all keys under /registry/.
func (e etcd) keys(ctx context.Context) ([]string, error) {
	var reply struct{ Kvs []struct{ Key []byte } }
	err := e.call(ctx, "range", map[string]any{"key": []byte("/registry/"), "range_end": []byte("/registry0"), "keys_only": true}, &reply)
	var out []string
	for _, kv := range reply.Kvs {
		out = append(out, string(kv.Key))
	}
	return out, err
}

func (e etcd) remove(ctx context.Context, key string) error {
	var reply struct{}
	return e.call(ctx, "deleterange", map[string]any{"key": []byte(key)}, &reply)
}
