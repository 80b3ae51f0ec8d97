local health = {status = "Progressing", message = "waits for the operator"}
local status = obj.status
if status == nil or status.phase == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "waits for the operator to read the change"
  return health
end

local is = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "True" then
    is[condition.type] = condition
  end
end

local function say(word, condition)
  health.status = word
  health.message = status.phase
  if condition.reason ~= nil and condition.reason ~= status.phase then
    health.message = health.message .. ": " .. condition.reason
  end
  if condition.message ~= nil and condition.message ~= "" then
    health.message = health.message .. ": " .. condition.message
  end
  return health
end

if is.Ready then
  return say("Healthy", is.Ready)
end
if is.Stalled then
  return say("Degraded", is.Stalled)
end
if is.ApprovalRequired then
  return say("Suspended", is.ApprovalRequired)
end
if is.Suspended then
  return say("Suspended", is.Suspended)
end
health.message = status.phase
if status.reason ~= nil and status.reason ~= "" then
  health.message = health.message .. ": " .. status.reason
end
if status.progress ~= nil and status.progress.percent ~= nil then
  health.message = health.message .. ", " .. string.format("%d", status.progress.percent) .. " %"
end
return health
