-- A backend that nobody has asked yet holds nothing up.
local health = {status = "Healthy", message = "not asked yet"}
local status = obj.status
if status == nil or status.reachable == nil then
  return health
end
if status.reachable then
  health.message = "reachable"
  if status.serverVersion ~= nil and status.serverVersion ~= "" then
    health.message = "reachable, " .. status.serverVersion
  end
  return health
end
health.status = "Degraded"
health.message = "not reachable"
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" and condition.message ~= nil and condition.message ~= "" then
    health.message = condition.message
  end
end
return health
