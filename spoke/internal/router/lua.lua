-- target and required are set by what is put before this: the header that says where to, and whether a request must have it.
-- The value is checked against an allow-list because paths are normalised before filters run: ".." in it would
-- otherwise be routed by one namespace's table and served by another's.
local function label(s)
  return #s <= 63 and string.find(s, "^[a-z0-9][a-z0-9%-]*$") and string.sub(s, -1) ~= "-"
end

function envoy_on_request(r)
  local h = r:headers()
  h:remove("x-isthmus-bad-target")
  local t = h:get(target)
  if t == nil and not required then return end
  h:remove(target)
  local namespace, kind, name = string.match(t or "", "^/([^/]+)/([a-z]+)/([^/]+)$")
  local path = h:get(":path") -- CONNECT has none
  if namespace == nil or #kind > 63 or not label(namespace) or not label(name) or path == nil then
    h:replace("x-isthmus-bad-target", "true")
    r:respond({[":status"] = "400"}, "bad " .. target)
    return
  end
  h:replace(":path", t .. path)
  r:clearRouteCache()
end
