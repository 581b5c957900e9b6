-- Found by require("lib.greetings"): beside the config.
local greetings = { de = "Hallo", fr = "Bonjour" }

local M = {}

function M.pick(language)
  return greetings[(language or ""):sub(1, 2)] or "Hello"
end

return M
